from carvana_unet.cli import carvana_predict

if __name__ == '__main__': carvana_predict()

from carvana_unet.predict_command import carvana_predict

if __name__ == '__main__': carvana_predict()

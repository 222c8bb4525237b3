from carvana_unet.cli import carvana_train

if __name__ == '__main__': carvana_train()
